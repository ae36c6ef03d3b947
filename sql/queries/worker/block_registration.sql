-- Lets no worker register or renew its lease until the transaction ends; a later look sees every worker that has registered. => nothing
lock table pgflow.workers in share mode
