-- Give an item back after a failure: to whoever asks a while later, or to the dead letters.
-- KEYS: input, dead letters, tries of the input's items, account (5)
-- ARGV: group, entry, consumer, failures allowed (0: this is not one, but the end), id, episode
--       number, stream, error, idle ms of an abandoned item, ms until the first other try, which
--       double
-- Returns 1 when it went to the dead letters, else 0. A caller whose item was meanwhile finished
-- by or given to another worker, or whose entry's id a server that fell back used once more, changes
-- nothing.
local group, entry, allowed, id = ARGV[1], ARGV[2], tonumber(ARGV[4]), ARGV[5]
local pending = pending_of(KEYS[1], group, entry, entry, 1)[1]
if not pending or pending[2] ~= ARGV[3] then return 0 end
local found = redis.call('XRANGE', KEYS[1], entry, entry)[1]
if found[2][2] ~= id then return 0 end
if allowed > 0 then
  local failures = redis.call('HINCRBY', KEYS[3], 'failures:' .. entry, 1)
  if failures < allowed then
    local wait = tonumber(ARGV[10]) * 2 ^ (failures - 1)
    park(KEYS[1], group, entry, 'failed', math.max(0, tonumber(ARGV[9]) - wait))
    return 0
  end
end
local tries = redis.call('HMGET', KEYS[3], 'failures:' .. entry, 'deaths:' .. entry)
local fields = found[2]
redis.call('XADD', KEYS[2], '*', 'stream', ARGV[7], 'id', id, 'episode', ARGV[6],
  'failures', tries[1] or 0, 'deaths', tries[2] or 0, 'error', ARGV[8], fields[5], fields[6])
finish(KEYS[1], group, entry, KEYS[3])
local account = account_at(4)
happened(account, 'dropped', id, 'DEAD_LETTER')
book(account)
return 1
