"""What pages and actions are, and how requests to them become answers."""
