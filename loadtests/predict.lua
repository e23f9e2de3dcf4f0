-- wrk's script: sends the requests of the file $BENCH_BODIES in turn. A line is `kind TAB path TAB body`, or a body
-- alone, which is sent to $BENCH_PATH. With $BENCH_KINDS latency is recorded by kind too, which wrk's own histogram
-- cannot do. That needs one thread per connection (wrk -tN -cN), in which an answer follows its request.
--
-- wrk's own rate does not count the requests in flight at the end (docs/benchmarks.md). Since a connection sends a
-- request whenever it gets an answer, this script counts requests instead, from one second after the start until
-- $BENCH_SECONDS, which is the value of -d.
local calls, kinds, at, started = {}, {}, 0, 0
local threads = {}
times, counted = {}, 0
local seconds = tonumber(os.getenv("BENCH_SECONDS"))
local edge = math.min(1, seconds / 4)
local from, till

local ffi = require("ffi")
ffi.cdef("typedef struct { long s; long us; } bench_time; int gettimeofday(bench_time *, void *);")
local clock = ffi.new("bench_time")
local function now_us()
  ffi.C.gettimeofday(clock, nil)
  return tonumber(clock.s) * 1e6 + tonumber(clock.us)
end

function setup(thread)
  threads[#threads + 1] = thread
  thread:set("number", #threads)
end

function init()
  for line in io.lines(os.getenv("BENCH_BODIES")) do
    local kind, path, body = line:match("^([^\t]*)\t([^\t]*)\t(.*)$")
    path, body = path or os.getenv("BENCH_PATH"), body or line
    calls[#calls + 1] = wrk.format("POST", path, {["content-type"] = "application/json"}, body)
    kinds[#calls] = kind
  end
  at = (number * 7919) % #calls -- so that threads do not send the same requests at the same time
end

request = function()
  at = at % #calls + 1
  started = now_us()
  if not from then from, till = started + edge * 1e6, started + seconds * 1e6 end
  if started >= from and started < till then counted = counted + 1 end
  return calls[at]
end

if os.getenv("BENCH_KINDS") then
  response = function(status)
    if status < 400 then times[#times + 1] = kinds[at] .. " " .. (now_us() - started) end
  end
end

local function print_kinds()
  local by_kind = {}
  for _, thread in ipairs(threads) do
    for _, one in ipairs(thread:get("times")) do
      local kind, us = one:match("^(.*) (%S+)$")
      by_kind[kind] = by_kind[kind] or {}
      table.insert(by_kind[kind], tonumber(us))
    end
  end
  for kind, values in pairs(by_kind) do
    table.sort(values)
    local function cut(share) return values[math.max(1, math.ceil(share * #values))] / 1000 end
    io.write(string.format("KIND %s %d %f %f %f\n", kind, #values, cut(0.5), cut(0.95), cut(0.99)))
  end
end

done = function(summary, latency)
  local e = summary.errors
  local errors = e.connect + e.read + e.write + e.status + e.timeout
  local rate = (summary.requests - e.status) / (summary.duration / 1e6)
  if errors == 0 then -- after an error a request need not follow an answer
    local all = 0
    for _, thread in ipairs(threads) do all = all + thread:get("counted") end
    rate = all / (seconds - edge)
  end
  io.write(string.format("RESULT %f %f %f %f %d\n", rate,
    latency:percentile(50) / 1000, latency:percentile(95) / 1000, latency:percentile(99) / 1000, errors))
  if os.getenv("BENCH_KINDS") then print_kinds() end
end
