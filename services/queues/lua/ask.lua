-- Somebody asks something of a run.
-- KEYS: its letters by id, its answers by id, the ids that it has not answered
-- ARGV: id, letter, seconds to keep them
-- Returns {the letter as it first came, the answer or ''}.
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 1 then
  redis.call('RPUSH', KEYS[3], ARGV[1])
  for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ARGV[3]) end
end
return {redis.call('HGET', KEYS[1], ARGV[1]), redis.call('HGET', KEYS[2], ARGV[1]) or ''}
