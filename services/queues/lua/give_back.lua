-- A consumer is gone: what it holds goes to the next worker that asks, and nothing that it still
-- sends is taken.
-- KEYS: input, tries of its items, consumers taken for dead
-- ARGV: group, consumer, '1' when it died with the items, '0' when it left
-- Returns how many items it held.
redis.call('SADD', KEYS[3], ARGV[2])
local given = 0
while true do
  local pending = pending_of(KEYS[1], ARGV[1], '-', '+', 100, ARGV[2])
  if #pending == 0 then break end
  for _, item in ipairs(pending) do
    if ARGV[3] == '1' then redis.call('HINCRBY', KEYS[2], 'deaths:' .. item[1], 1) end
    park(KEYS[1], ARGV[1], item[1], 'left', 86400000)
    given = given + 1
  end
end
redis.pcall('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return given
