-- Finish an item: the one commit rule. A second commit of the same item does nothing.
-- KEYS: input, output, episode, ledger, credits in use
-- ARGV: group, entry, id, episode number, output payload ('' for none), then kind and detail of
--       each event
-- Returns 1, or 0 when the item was finished before.
local id, number, payload = ARGV[3], ARGV[4], ARGV[5]
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
if payload ~= '' then redis.call('XADD', KEYS[2], '*', 'id', id, 'payload', payload) end
for i = 6, #ARGV, 2 do
  happened(KEYS[4], KEYS[3], ARGV[i], id, number, ARGV[i + 1])
  if ARGV[i] == 'dropped' then redis.call('DECR', KEYS[5]) end
end
redis.call('XDEL', KEYS[1], ARGV[2])
settle(KEYS[3])
return 1
