"""in: ledger, receipts and plan. out: one page for people."""
