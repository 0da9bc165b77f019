-- The oldest of what a run has not answered: {id, letter}, or nothing.
-- KEYS: its letters by id, its answers by id, the ids that it has not answered
local id = redis.call('LINDEX', KEYS[3], 0)
if not id then return {} end
return {id, redis.call('HGET', KEYS[1], id) or ''}
