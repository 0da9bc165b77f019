-- A holder works on: none of these is abandoned. One that was taken for dead holds nothing.
-- KEYS: input, consumers taken for dead
-- ARGV: group, then entry and consumer of each
-- Returns the entries that are no longer theirs.
local lost = {}
for i = 2, #ARGV, 2 do
  local pending = pending_of(KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1)[1]
  if redis.call('SISMEMBER', KEYS[2], ARGV[i + 1]) == 1 then
    give_up(KEYS[1], ARGV[1], ARGV[i], ARGV[i + 1])
    table.insert(lost, ARGV[i])
  elseif pending and pending[2] == ARGV[i + 1] then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[i + 1], 0, ARGV[i], 'JUSTID')
  else
    table.insert(lost, ARGV[i])
  end
end
return lost
