-- A run has done what was asked of it, or refused.
-- KEYS: its letters by id, its answers by id, the ids that it has not answered
-- ARGV: id, answer, seconds to keep them
redis.call('LREM', KEYS[3], 1, ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
for i = 1, 2 do redis.call('EXPIRE', KEYS[i], ARGV[3]) end
return ''
