// A plain Node script: no cluster, no signal handler, so SIGTERM is death.
// usage: node node.js HOST PORT
const http = require("http");
const [host, port] = process.argv.slice(2);

http.createServer((request, response) => {
  const url = new URL(request.url, "http://localhost");
  const answer = () => response.end(`pid=${process.pid}\n`);
  if (url.pathname === "/slow") return setTimeout(answer, Number(url.searchParams.get("ms")));
  if (url.pathname !== "/download") return answer();
  let left = Number(url.searchParams.get("s")) * 10;
  const timer = setInterval(() => {
    if (left-- > 0) return response.write("x".repeat(1000));
    clearInterval(timer);
    response.end();
  }, 100);
}).listen(Number(port), host);
