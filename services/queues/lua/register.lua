-- A run says that it is there, or how it ended.
-- KEYS: what every run says, when each was last heard of
-- ARGV: id of the run, what it says, then ids of runs that are forgotten
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1], time[1])
for i = 3, #ARGV do
  redis.call('HDEL', KEYS[1], ARGV[i])
  redis.call('HDEL', KEYS[2], ARGV[i])
end
return ''
