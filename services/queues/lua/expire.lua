-- Let keys of a run live so long from now on.
-- KEYS: any of the run but its lease, which has a term of its own
-- ARGV: seconds, or '' for ever
for _, key in ipairs(KEYS) do
  if ARGV[1] == '' then
    redis.call('PERSIST', key)
  else
    redis.call('EXPIRE', key, ARGV[1])
  end
end
return ''
