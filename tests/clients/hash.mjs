/* Recomputes the hash of each entry by the rule of ledger_core/README.md; prints a list of hashes as JSON. */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

import canonicalize from "canonicalize";

const entries = JSON.parse(readFileSync(process.argv[2], "utf8"));
const hashes = entries.map(({ hash, ...rest }) => createHash("sha256").update(canonicalize(rest)).digest("hex"));
console.log(JSON.stringify(hashes));
