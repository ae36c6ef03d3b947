-- Checks deferred constraints and fires deferred triggers now, with the step's own role and settings. => nothing to read
set constraints all immediate
