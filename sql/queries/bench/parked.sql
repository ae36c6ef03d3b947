-- How many tokens wait, for a signal or for their time. => tokens
select count(*) from pgflow.jobs j where j.state = 'parked'
