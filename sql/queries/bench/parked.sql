-- Counts the parked jobs. => jobs
select count(*) from pgflow.jobs j where j.state = 'parked'
