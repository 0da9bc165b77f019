-- Finish items: the one commit rule, for each of them. A second commit of the same item does nothing.
-- KEYS: input, output, tries of the input's items, consumers taken for dead, account (5)
-- ARGV: group, episode number, then of each item: entry, consumer, id, field and value of the
--       output ('' for none, see payloads.py), how many events, and kind and detail of each
-- Returns of each 1, or 0 when the item was finished before, or -1 for a consumer whose items were
-- given back; what it took since is given back as well.
local input, group, account = KEYS[1], ARGV[1], account_at(5)
local fenced, finished, tries, outcomes = {}, {}, {}, {}

local function is_fenced(consumer)
  if fenced[consumer] == nil then
    fenced[consumer] = redis.call('SISMEMBER', KEYS[4], consumer) == 1
  end
  return fenced[consumer]
end

local function commit(entry, consumer, id, field, value, first, events)
  if is_fenced(consumer) then
    give_up(input, group, entry, consumer)
    return -1
  end
  -- A server that lost its last second, its clock behind, may have used the entry's id once more.
  local found = redis.call('XRANGE', input, entry, entry)[1]
  if not found or found[2][2] ~= id then return 0 end
  if redis.call('XACK', input, group, entry) == 0 then return 0 end
  if field ~= '' then
    redis.call('XADD', KEYS[2], '*', 'id', id, 'episode', ARGV[2], field, value)
  end
  for i = first, first + 2 * (events - 1), 2 do happened(account, ARGV[i], id, ARGV[i + 1]) end
  table.insert(finished, entry)
  table.insert(tries, 'failures:' .. entry)
  table.insert(tries, 'deaths:' .. entry)
  return 1
end

local at = 3
while at <= #ARGV do
  local entry, consumer, id, field, value = unpack(ARGV, at, at + 4)
  local events = tonumber(ARGV[at + 5])
  table.insert(outcomes, commit(entry, consumer, id, field, value, at + 6, events))
  at = at + 6 + 2 * events
end
if #finished > 0 then
  redis.call('XDEL', input, unpack(finished))
  redis.call('HDEL', KEYS[3], unpack(tries))
  book(account)
end
return outcomes
