-- Give an item back after a failure: to the next worker that asks, or to the dead letters.
-- KEYS: input, dead letters, episode, ledger, credits in use
-- ARGV: group, entry, deliveries the caller saw, most deliveries, id, episode number, stream, error
-- Returns 1 when it went to the dead letters, else 0. A caller whose item was meanwhile finished
-- by or given to another worker changes nothing.
local group, entry, id, number = ARGV[1], ARGV[2], ARGV[5], ARGV[6]
local pending = redis.call('XPENDING', KEYS[1], group, entry, entry, 1)[1]
if not pending or pending[4] ~= tonumber(ARGV[3]) then return 0 end
if pending[4] < tonumber(ARGV[4]) then
  -- Parked with a day of idle time, so that whoever takes next finds it abandoned.
  redis.call('XCLAIM', KEYS[1], group, 'failed', 0, entry, 'IDLE', 86400000, 'JUSTID')
  return 0
end
local payload = redis.call('XRANGE', KEYS[1], entry, entry)[1][2][4]
redis.call('XADD', KEYS[2], '*', 'stream', ARGV[7], 'id', id, 'episode', number,
  'deliveries', pending[4], 'error', ARGV[8], 'payload', payload)
redis.call('XACK', KEYS[1], group, entry)
redis.call('XDEL', KEYS[1], entry)
redis.call('DECR', KEYS[5])
happened(KEYS[4], KEYS[3], 'dropped', id, number, 'DEAD_LETTER')
settle(KEYS[3])
return 1
