-- Add the episodes that are not there yet, PENDING; the first of a run that goes on, COMPLETED.
-- KEYS: number of episodes, layout of the run's keys, then the key of each episode
-- ARGV: prompts planned, episodes published by the run this one goes on from, layout
-- Returns {episodes before, prompts planned of the first, layout}.
local before = tonumber(redis.call('GET', KEYS[1]) or '0')
local planned, published, count = ARGV[1], tonumber(ARGV[2]), #KEYS - 2
if before > 0 then planned = redis.call('HGET', KEYS[3], 'planned') end
local layout = ARGV[3]
if before > 0 then layout = redis.call('GET', KEYS[2]) or '1' end
if before <= count and planned == ARGV[1] and layout == ARGV[3] then
  for i = before + 1, count do
    local key = KEYS[i + 2]
    redis.call('HSET', key, 'state', 'PENDING', 'planned', planned)
    if before == 0 and i <= published then
      redis.call('HSET', key, 'state', 'COMPLETED', 'weight_version', i)
    end
  end
  redis.call('SET', KEYS[1], count)
  redis.call('SET', KEYS[2], layout)
end
return {before, tonumber(planned), layout}
