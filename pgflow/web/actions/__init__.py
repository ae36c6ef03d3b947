"""The actions: each module has inputs, what they do, and its `Action`s, which `pgflow.web.table` lists."""
