-- Runs are forgotten.
-- KEYS: what every run says, when each was last heard of
-- ARGV: their ids
for i = 1, #ARGV do
  redis.call('HDEL', KEYS[1], ARGV[i])
  redis.call('HDEL', KEYS[2], ARGV[i])
end
return ''
