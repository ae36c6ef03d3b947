-- Checks deferred constraints and fires deferred triggers now, with the step's own role and settings. => no result
set constraints all immediate
