-- Put before every other script (see client.py). The first key and argument are its own: the run's
-- epoch, and the caller's (0: of nobody's run, such as a tool's).
local epoch_key = table.remove(KEYS, 1)
local newest, epoch = redis.call('GET', epoch_key), tonumber(table.remove(ARGV, 1))
if epoch > 0 and tonumber(newest or '0') > epoch then return redis.error_reply('EPOCH ' .. newest) end

-- Whoever waits for something of the run looks again (changes.py); the last line says all.
local function announce(changes) redis.call('XADD', changes, 'MAXLEN', 1, '*', 'changed', '') end

-- The account of an episode, five keys from KEYS[first]: the episode's hash, its ledger, the last
-- step of each of its prompts, the run's credits in use, and its announcements. What happens is
-- added up here and written by `book`, once a script.
local function account_at(first)
  return {
    episode = KEYS[first], ledger = KEYS[first + 1], steps = KEYS[first + 2],
    credits = KEYS[first + 3], changes = KEYS[first + 4], last = {}, counts = {}, taken = 0,
  }
end

local function add(account, counter, by)
  account.counts[counter] = (account.counts[counter] or 0) + by
end

-- A prompt's last step, and of a dropped one the reason; false when it was never dispatched.
local function step_of(account, id)
  local step = account.last[id] or redis.call('HGET', account.steps, id)
  if not step then return false end
  local reason = string.match(step, '^dropped:(.*)')
  if reason then return 'dropped', reason end
  return step
end

-- One event of one prompt: a line of the ledger, the prompt's last step, and what it counts.
-- A pair that is dropped no longer counts as paired: dispatched = in flight + paired + dropped.
local function happened(account, kind, id, detail)
  local before, reason
  if kind == 'dropped' or kind == 'replayed' or kind == 'restored' then
    before, reason = step_of(account, id)
  end
  redis.call('XADD', account.ledger, '*', 'kind', kind, 'id', id, 'detail', detail)
  account.last[id] = kind == 'dropped' and 'dropped:' .. detail or kind
  local was_paired = before == 'paired' or before == 'restored'
  if kind == 'dispatched' then
    add(account, 'dispatched', 1)
    add(account, 'in_flight', 1)
    account.taken = account.taken + 1
  elseif kind == 'paired' then
    add(account, 'paired', 1)
    add(account, 'in_flight', -1)
    add(account, 'version:' .. string.match(detail, '^%d*'), 1)
  elseif kind == 'dropped' then
    add(account, 'dropped:' .. detail, 1)
    add(account, was_paired and 'paired' or 'in_flight', -1)
    account.taken = account.taken - 1
  elseif kind == 'trained' then
    add(account, 'trained', 1)
    account.taken = account.taken - 1
  elseif kind == 'replayed' then
    -- A dead letter is tried again, as if it had never been one.
    add(account, 'dropped:' .. reason, -1)
    add(account, 'in_flight', 1)
    account.taken = account.taken + 1
  elseif kind == 'restored' then
    -- As a pair, wherever it was before: what follows says whether it was trained.
    add(account, 'paired', 1)
    if before == false then add(account, 'dispatched', 1) end
    if before == 'dropped' then add(account, 'dropped:' .. reason, -1) end
    if before and before ~= 'dropped' then
      add(account, 'in_flight', -1)
    else
      account.taken = account.taken + 1
    end
  else
    add(account, kind, 1)
  end
end

-- An episode that is pausing is paused once nothing of it is in flight.
local function settle(episode, changes)
  local row = redis.call('HMGET', episode, 'state', 'in_flight')
  if row[1] == 'PAUSING' and tonumber(row[2] or '0') <= 0 then
    redis.call('HSET', episode, 'state', 'PAUSED')
    announce(changes)
  end
end

-- Write what was added up. Announced is what the loop waits for: that nothing is in flight, and
-- that enough has ended for more to be dispatched (dispatch.lua says how much that is).
local function book(account)
  local steps = {}
  for id, step in pairs(account.last) do
    table.insert(steps, id)
    table.insert(steps, step)
  end
  if #steps > 0 then redis.call('HSET', account.steps, unpack(steps)) end
  if account.taken ~= 0 then redis.call('INCRBY', account.credits, account.taken) end
  for counter, by in pairs(account.counts) do
    if by ~= 0 then redis.call('HINCRBY', account.episode, counter, by) end
  end
  local ended = -(account.counts.in_flight or 0)
  account.last, account.counts, account.taken = {}, {}, 0
  if ended <= 0 then return end
  local row = redis.call('HMGET', account.episode, 'in_flight', 'more_at')
  local now, more_at = tonumber(row[1]), tonumber(row[2] or '0')
  if now <= 0 or (now <= more_at and now + ended > more_at) then announce(account.changes) end
  settle(account.episode, account.changes)
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

-- What a consumer that was taken for dead still holds, as it took it since.
local function give_up(input, group, entry, consumer)
  local pending = pending_of(input, group, entry, entry, 1)[1]
  if pending and pending[2] == consumer then park(input, group, entry, 'left', 86400000) end
end

-- An item is over: nothing of it stays.
local function finish(input, group, entry, tries)
  redis.call('XACK', input, group, entry)
  redis.call('XDEL', input, entry)
  redis.call('HDEL', tries, 'failures:' .. entry, 'deaths:' .. entry)
end
