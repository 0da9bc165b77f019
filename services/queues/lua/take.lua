-- New items, without waiting, unless there are any that were given back: those come first.
-- KEYS: input, consumers taken for dead
-- ARGV: group, consumer, count, idle ms of an abandoned item
-- Returns {1 when some wait that were given back, or may be, entries}; the error FENCED for a consumer whose
-- items were given back.
local input, group, consumer = KEYS[1], ARGV[1], ARGV[2]
if redis.call('SISMEMBER', KEYS[2], consumer) == 1 then return redis.error_reply('FENCED') end
for _, name in ipairs({'failed', 'left'}) do
  if #pending_of(input, group, 'IDLE', ARGV[4], '-', '+', 1, name) > 0 then return {1, {}} end
end
local reply = redis.pcall('XREADGROUP', 'GROUP', group, consumer, 'COUNT', ARGV[3],
  'STREAMS', input, '>')
if reply and reply.err then
  if not string.find(reply.err, 'NOGROUP') then error(reply.err) end
  return {1, {}}  -- the server lost the stream: who reads it next makes it again
end
return {0, reply and reply[1][2] or {}}
