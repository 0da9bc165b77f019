-- Put after every other script (see client.py), which is `work`: what it made lives as long as the
-- rest of the run, of which the epoch's key tells how long: see RunQueues.keep.
local answer = work()
local left = redis.call('TTL', epoch_key)
if left > 0 then
  for _, key in ipairs(KEYS) do
    if redis.call('TTL', key) == -1 then redis.call('EXPIRE', key, left) end
  end
end
return answer
