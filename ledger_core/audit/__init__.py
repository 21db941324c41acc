"""Does a ledger add up? Audits, exports and receipts. They repair nothing."""

from ledger_core.audit.findings import DISCREPANCIES_MAX, FINDINGS_MAX
from ledger_core.audit.fold import Report, audit
from ledger_core.audit.receipts import Receipt, read_keys, read_receipt, signed
from ledger_core.audit.store_audit import Read, audit_export, audit_store, export

__all__ = [
    "DISCREPANCIES_MAX",
    "FINDINGS_MAX",
    "Read",
    "Receipt",
    "Report",
    "audit",
    "audit_export",
    "audit_store",
    "export",
    "read_keys",
    "read_receipt",
    "signed",
]
