-- The lease on a run: one orchestrator at a time, each of a higher epoch than those before it.
-- KEYS: lease, epoch
-- ARGV: token, who holds it from now on, how long in ms, '1' to take it whoever has it
-- Returns {epoch, ''}, or {0, who has it, ms left}.
local held = redis.call('HMGET', KEYS[1], 'token', 'holder')
if held[1] and held[1] ~= ARGV[1] and ARGV[4] ~= '1' then
  return {0, held[2], redis.call('PTTL', KEYS[1])}
end
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'holder', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {redis.call('INCR', KEYS[2]), ''}
