-- The holder works on. A lease that ran out, or that the server lost, is still the holder's where
-- nobody took it since: that would have raised the epoch. Of an older epoch than the holder's is a
-- lease that the server fell back to.
-- KEYS: lease, epoch
-- ARGV: token, who holds it, how long in ms, its epoch
-- Returns '', or who took it.
local held = redis.call('HMGET', KEYS[1], 'token', 'holder')
local newest, epoch = tonumber(redis.call('GET', KEYS[2]) or '0'), tonumber(ARGV[4])
if newest > epoch or (newest == epoch and held[1] and held[1] ~= ARGV[1]) then
  return held[2] or 'nobody'
end
redis.call('SET', KEYS[2], ARGV[4], 'KEEPTTL')
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'holder', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return ''
