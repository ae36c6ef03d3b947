-- Lets no worker register or renew its lease until the transaction ends; who looks next sees all who have. => nothing
lock table pgflow.workers in share mode
