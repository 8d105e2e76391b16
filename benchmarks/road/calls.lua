-- One kind of call, as often as the connections allow; the environment says which (load.py).
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = os.getenv("ROAD_BODY")
local expected = os.getenv("ROAD_EXPECTED")
local pace_ms = tonumber(os.getenv("ROAD_PACE_MS"))

if pace_ms > 0 then
  function delay()
    return math.floor(-pace_ms * math.log(1 - math.random()))
  end
end

-- Answers of this thread; `done` adds those of all.
num_expected, num_other = 0, 0
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function response(status, headers, body)
  if string.find(body, expected, 1, true) then
    num_expected = num_expected + 1
  else
    num_other = num_other + 1
  end
end

function done(summary, latency, requests)
  local good, other = 0, 0
  for _, thread in ipairs(threads) do
    good = good + thread:get("num_expected")
    other = other + thread:get("num_other")
  end
  local errors = summary.errors
  io.write(string.format(
    '\nROAD {"seconds": %f, "expected": %d, "other": %d, "broken": %d, "p50_s": %f, "p99_s": %f}\n',
    summary.duration / 1e6, good, other,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6))
end
