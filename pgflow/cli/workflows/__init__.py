"""Commands about definitions: draw, document and validate workflows, one module per command."""
