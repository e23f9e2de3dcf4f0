-- wrk's side of loadtests/bench.py: one predict request a line of the file $BENCH_BODIES, in turn.
local bodies = {}
for line in io.lines(os.getenv("BENCH_BODIES")) do bodies[#bodies + 1] = line end
local at = math.random(#bodies)

request = function()
  at = at % #bodies + 1
  return wrk.format("POST", os.getenv("BENCH_PATH"), {["content-type"] = "application/json"}, bodies[at])
end

done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %f %f %f %f %d\n", summary.requests / (summary.duration / 1e6),
    latency:percentile(50) / 1000, latency:percentile(95) / 1000, latency:percentile(99) / 1000,
    e.connect + e.read + e.write + e.status + e.timeout))
end
