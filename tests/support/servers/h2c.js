// An app that speaks HTTP/2 without TLS and nothing else. GET /NNN is answered with that status, a line of stdout tells
// of each request: its pseudo-headers and headers as JSON.
const server = require('http2').createServer();
server.on('stream', (stream, headers) => {
  console.log(JSON.stringify(headers));
  const [, status] = /^\/(\d{3})/.exec(headers[':path']) || [, '200'];
  if (status === '000') return;  // no answer
  const extra = status.startsWith('3') ? { location: '/200' } : {};
  if (status === '103') stream.additionalHeaders({ ':status': 103, link: '</a>' });
  stream.respond({ ':status': status === '103' ? 200 : Number(status), ...extra });
  if (!['204', '205', '304'].includes(status)) stream.end(headers[':path'].includes('long') ? 'x'.repeat(200000) : 'well');
});
server.on('sessionError', () => {});
server.listen(Number(process.argv[2] || 0), '127.0.0.1', () => console.log(server.address().port));
