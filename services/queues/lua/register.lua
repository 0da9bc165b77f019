-- A run says that it is there, or how it ended.
-- KEYS: what every run says, when each was last heard of
-- ARGV: id of the run, what it says
local now = redis.call('TIME')[1]
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1], now)
return ''
