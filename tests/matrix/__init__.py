"""Every client against every place: what `scripts/clients` writes to docs/clients.md, and what tests hold a part of."""
