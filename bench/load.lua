-- For wrk: ask for the paths of a file in random order, or for the URL alone; print exact numbers as JSON.
function init(args)
  if not args[1] then return end
  local requests = {}
  for path in io.lines(args[1]) do requests[#requests + 1] = wrk.format(nil, path) end
  math.randomseed(1)
  request = function() return requests[math.random(#requests)] end
end

function done(summary)
  local bad = summary.errors
  io.write(string.format('{"requests": %d, "bytes": %d, "duration_us": %d, "bad": %d}\n', summary.requests,
    summary.bytes, summary.duration, bad.connect + bad.read + bad.write + bad.status + bad.timeout))
end
