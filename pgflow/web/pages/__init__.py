"""The pages: each module has a model, how it is read, and its `Page`, which `pgflow.web.table` lists."""
