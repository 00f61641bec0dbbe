"""in: a plan over the cards of many stations. out: the ledger of one rack, right whatever fails."""
