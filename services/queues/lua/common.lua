-- Put before every other script (see client.py).

-- The account of an episode, four keys from KEYS[first]: the episode's hash, its ledger, the last
-- step of each of its prompts, and the run's credits in use.
local function account_at(first)
  return {
    episode = KEYS[first], ledger = KEYS[first + 1], steps = KEYS[first + 2],
    credits = KEYS[first + 3],
  }
end

-- One event of one prompt: a line of the ledger, the prompt's last step, and what it counts.
-- A pair that is dropped no longer counts as paired: dispatched = in flight + paired + dropped.
local function happened(account, kind, id, detail)
  local before = redis.call('HGET', account.steps, id)
  redis.call('XADD', account.ledger, '*', 'kind', kind, 'id', id, 'detail', detail)
  redis.call('HSET', account.steps, id, kind)
  local counter = kind
  if kind == 'dropped' then counter = 'dropped:' .. detail end
  redis.call('HINCRBY', account.episode, counter, 1)
  if kind == 'dispatched' then
    redis.call('HINCRBY', account.episode, 'in_flight', 1)
    redis.call('INCR', account.credits)
  elseif kind == 'paired' or (kind == 'dropped' and before ~= 'paired') then
    redis.call('HINCRBY', account.episode, 'in_flight', -1)
  elseif kind == 'dropped' then
    redis.call('HINCRBY', account.episode, 'paired', -1)
  end
  if kind == 'dropped' or kind == 'trained' then redis.call('DECR', account.credits) end
end

-- An episode that is pausing is paused once nothing of it is in flight.
local function settle(episode)
  if redis.call('HGET', episode, 'state') == 'PAUSING'
    and tonumber(redis.call('HGET', episode, 'in_flight') or '0') <= 0 then
    redis.call('HSET', episode, 'state', 'PAUSED')
  end
end

-- An item is given back: whoever takes next finds it abandoned by this name, for a day.
local function park(input, group, entry, name)
  redis.call('XCLAIM', input, group, name, 0, entry, 'IDLE', 86400000, 'JUSTID')
end

-- An item is over: nothing of it stays.
local function finish(input, group, entry, tries)
  redis.call('XACK', input, group, entry)
  redis.call('XDEL', input, entry)
  redis.call('HDEL', tries, 'failures:' .. entry, 'deaths:' .. entry)
end
