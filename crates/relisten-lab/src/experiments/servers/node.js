// What a user would write: no cluster, no signal handler, so SIGTERM is death.
require("http")
  .createServer((request, response) => response.end("ok\n"))
  .listen(Number(process.env.PORT), "127.0.0.1");
