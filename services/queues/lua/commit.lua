-- Finish an item: the one commit rule. A second commit of the same item does nothing.
-- KEYS: input, output, tries of the input's items, consumers taken for dead, account (4)
-- ARGV: group, entry, consumer, id, episode number, field and value of the output ('' for none,
--       see payloads.py), then kind and detail of each event
-- Returns 1, or 0 when the item was finished before; the error FENCED for a consumer whose items
-- were given back.
local group, entry, consumer, id = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if redis.call('SISMEMBER', KEYS[4], consumer) == 1 then return redis.error_reply('FENCED') end
-- A server that lost its last second, its clock behind, may have used the entry's id once more.
local found = redis.call('XRANGE', KEYS[1], entry, entry)[1]
if not found or found[2][2] ~= id then return 0 end
if #pending_of(KEYS[1], group, entry, entry, 1) == 0 then return 0 end
local account = account_at(5)
if ARGV[6] ~= '' then
  redis.call('XADD', KEYS[2], '*', 'id', id, 'episode', ARGV[5], ARGV[6], ARGV[7])
end
for i = 8, #ARGV, 2 do happened(account, ARGV[i], id, ARGV[i + 1]) end
finish(KEYS[1], group, entry, KEYS[3])
settle(account.episode)
return 1
