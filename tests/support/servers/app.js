// The app for Node. Its clock is the machine's monotonic one as well; a keep-alive of 1 s is overdue after every nap.
const http = require("node:http");
const fs = require("node:fs");

function say(what) {
  const now = Number(process.hrtime.bigint()) / 1e9;
  fs.writeSync(1, `${what} ${now.toFixed(6)}\n`);
}

setInterval(() => say("tick"), 100);
const server = http.createServer((request, response) => {
  say("request");
  response.setHeader("Content-Length", 6);
  response.end("hello\n");
});
server.keepAliveTimeout = 1000;
server.listen(Number(process.argv[2]), "127.0.0.1");
process.on("SIGTERM", () => process.exit(0));
