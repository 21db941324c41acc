/* What an app in TypeScript would do with the client that is made of the OpenAPI document; prints what it got as JSON. */

import createClient from "openapi-fetch";
import type { components, paths } from "./schema.mjs";

declare const process: { argv: [string, string, string, string, string] };
declare const console: { log(text: string): void };

type Entry = components["schemas"]["LedgerEntry"];
type Body = components["schemas"]["EntryRequest"];

const [, , baseUrl, gatewayUrl, token] = process.argv;
const ledger = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${token}` } });
const owner_id = "typescript";
const metadata: Record<string, string> = { invoice: "2026-117", "a.b:c": "ü" };
const add: Body = { owner_id, operation: "CREDIT_ADD", amount: 7, metadata };

async function post(body: Body, key?: string) {
  const params = key === undefined ? {} : { header: { "Idempotency-Key": key } };
  return ledger.POST("/ledger/entry", { body, params });
}

function entryOf({ data, error }: Awaited<ReturnType<typeof post>>): Entry {
  if (data === undefined) throw new Error(JSON.stringify(error));
  return data;
}

const first = await post(add, "key");
const again = await post(add, "key");
const kept: Record<string, string> | undefined = entryOf(first).metadata;
const poor = await post({ owner_id, operation: "CREDIT_SPEND", nonce: "order-1", amount: 500 });
const used = await post({ owner_id, operation: "CREDIT_SPEND", nonce: "key" });
const bad = await post({ owner_id: "a#b", operation: "CREDIT_SPEND", nonce: "n" });

const path = { owner_id };
const balance = await ledger.GET("/ledger/{owner_id}/balance", { params: { path } });
const credits: number | undefined = balance.data?.balance;
const history = await ledger.GET("/ledger/{owner_id}/entries", { params: { path, query: { limit: 1 } } });
const entries: Entry[] = history.data?.entries ?? [];
const next: string | null | undefined = history.data?.next_cursor;
const audit = await ledger.GET("/ledger/{owner_id}/verify", { params: { path: { owner_id: "nobody" } } });
const updated: string | null | undefined = audit.data?.head?.updated_at;

const problems = [poor.error, used.error, bad.error].map((error) =>
  error && "code" in error ? [error.status, error.code, error.state] : error,
);
const required: number | undefined = poor.error && "required" in poor.error ? poor.error.required : undefined;
const original: Entry | undefined = used.error && "entry" in used.error ? used.error.entry : undefined;

const gateway = createClient<paths>({ baseUrl: gatewayUrl });
const messages: [number, string | undefined][] = [];
for (const status of [401, 403, 429, 500, 503]) {
  const params = { path: { owner_id: String(status) } };
  const { error, response } = await gateway.GET("/ledger/{owner_id}/balance", { params });
  messages.push([response.status, error && "message" in error ? error.message : undefined]);
}

console.log(
  JSON.stringify({
    kept,
    replayed: [first, again].map(({ response }) => response.headers.get("Idempotency-Replayed")),
    same: entryOf(first).hash === entryOf(again).hash,
    problems,
    required,
    original: original?.id,
    credits,
    history: entries.map(({ metadata }) => metadata),
    next,
    updated,
    messages,
  }),
);
