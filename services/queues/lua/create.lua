-- Add the episodes that are not there yet, PENDING; the first of a run that goes on, COMPLETED.
-- KEYS: number of episodes, then the key of each episode
-- ARGV: prompts planned, episodes published by the run this one goes on from
-- Returns {episodes before, prompts planned of the first}.
local before = tonumber(redis.call('GET', KEYS[1]) or '0')
local planned, published = ARGV[1], tonumber(ARGV[2])
if before > 0 then planned = redis.call('HGET', KEYS[2], 'planned') end
if before <= #KEYS - 1 and planned == ARGV[1] then
  for i = before + 2, #KEYS do
    redis.call('HSET', KEYS[i], 'state', 'PENDING', 'planned', planned)
    if before == 0 and i - 1 <= published then
      redis.call('HSET', KEYS[i], 'state', 'COMPLETED', 'weight_version', i - 1)
    end
  end
  redis.call('SET', KEYS[1], #KEYS - 1)
end
return {before, tonumber(planned)}
