-- What transactional steps of a test install have written. => run, step, nonce
select e.run, e.step, e.nonce from pgflow.effects e order by e.at
