-- Reads the rows that transactional steps of a test install wrote. => run, step, nonce
select e.run, e.step, e.nonce from pgflow.effects e order by e.at
