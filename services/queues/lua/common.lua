-- Put before every other script (see client.py). The first key and argument are its own: the run's
-- epoch, and the caller's (0: of nobody's run, such as a tool's).
local epoch_key = table.remove(KEYS, 1)
local newest, epoch = redis.call('GET', epoch_key), tonumber(table.remove(ARGV, 1))
if epoch > 0 and tonumber(newest or '0') > epoch then return redis.error_reply('EPOCH ' .. newest) end

-- The account of an episode, four keys from KEYS[first]: the episode's hash, its ledger, the last
-- step of each of its prompts, and the run's credits in use.
local function account_at(first)
  return {
    episode = KEYS[first], ledger = KEYS[first + 1], steps = KEYS[first + 2],
    credits = KEYS[first + 3],
  }
end

local function add(account, counter, by) redis.call('HINCRBY', account.episode, counter, by) end

-- A prompt's last step, and of a dropped one the reason; false when it was never dispatched.
local function step_of(account, id)
  local step = redis.call('HGET', account.steps, id)
  if not step then return false end
  local reason = string.match(step, '^dropped:(.*)')
  if reason then return 'dropped', reason end
  return step
end

-- One event of one prompt: a line of the ledger, the prompt's last step, and what it counts.
-- A pair that is dropped no longer counts as paired: dispatched = in flight + paired + dropped.
local function happened(account, kind, id, detail)
  local before, reason = step_of(account, id)
  redis.call('XADD', account.ledger, '*', 'kind', kind, 'id', id, 'detail', detail)
  redis.call('HSET', account.steps, id, kind == 'dropped' and 'dropped:' .. detail or kind)
  local was_paired = before == 'paired' or before == 'restored'
  if kind == 'dispatched' then
    add(account, 'dispatched', 1)
    add(account, 'in_flight', 1)
    redis.call('INCR', account.credits)
  elseif kind == 'paired' then
    add(account, 'paired', 1)
    add(account, 'in_flight', -1)
  elseif kind == 'dropped' then
    add(account, 'dropped:' .. detail, 1)
    add(account, was_paired and 'paired' or 'in_flight', -1)
    redis.call('DECR', account.credits)
  elseif kind == 'trained' then
    add(account, 'trained', 1)
    redis.call('DECR', account.credits)
  elseif kind == 'restored' then
    -- As a pair, wherever it was before: what follows says whether it was trained.
    add(account, 'paired', 1)
    if before == false then add(account, 'dispatched', 1) end
    if before == 'dropped' then add(account, 'dropped:' .. reason, -1) end
    if before and before ~= 'dropped' then
      add(account, 'in_flight', -1)
    else
      redis.call('INCR', account.credits)
    end
  else
    add(account, kind, 1)
  end
end

-- An episode that is pausing is paused once nothing of it is in flight.
local function settle(episode)
  if redis.call('HGET', episode, 'state') == 'PAUSING'
    and tonumber(redis.call('HGET', episode, 'in_flight') or '0') <= 0 then
    redis.call('HSET', episode, 'state', 'PAUSED')
  end
end

-- As XPENDING; nothing where the server lost the stream, which is made again by who reads it next.
local function pending_of(...)
  local reply = redis.pcall('XPENDING', ...)
  if not reply.err then return reply end
  if string.find(reply.err, 'NOGROUP') then return {} end
  error(reply.err)
end

-- An item is given back: whoever takes next finds it abandoned by this name, for so many ms.
local function park(input, group, entry, name, idle)
  redis.call('XCLAIM', input, group, name, 0, entry, 'IDLE', idle, 'JUSTID')
end

-- An item is over: nothing of it stays.
local function finish(input, group, entry, tries)
  redis.call('XACK', input, group, entry)
  redis.call('XDEL', input, entry)
  redis.call('HDEL', tries, 'failures:' .. entry, 'deaths:' .. entry)
end
