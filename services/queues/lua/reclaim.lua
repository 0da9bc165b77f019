-- Take over items that were delivered and never finished. XAUTOCLAIM does not say how often an
-- item was delivered, so this is XPENDING and XCLAIM in one step.
-- KEYS: input
-- ARGV: group, consumer, idle ms of an abandoned item, count, then every entry the caller holds:
--       what its consumer name took beside these, a dead predecessor took
-- Returns {entry, payload, deliveries, consumer that held it} of each.
local group, consumer, count = ARGV[1], ARGV[2], tonumber(ARGV[4])
local taken, held = {}, {}
for i = 5, #ARGV do held[ARGV[i]] = true end
local function claim(pending, idle)
  for _, item in ipairs(pending) do
    if #taken >= count then return end
    local mine = item[2] == consumer and held[item[1]]
    local entry = not mine and redis.call('XCLAIM', KEYS[1], group, consumer, idle, item[1])[1]
    if entry then
      held[item[1]] = true
      table.insert(taken, {item[1], entry[2][4], item[4] + 1, item[2]})
    end
  end
end
local most = count + #ARGV - 4
claim(redis.call('XPENDING', KEYS[1], group, 'IDLE', ARGV[3], '-', '+', most), ARGV[3])
claim(redis.call('XPENDING', KEYS[1], group, '-', '+', most + #taken, consumer), 0)
return taken
