// Answers requests with the length of what was sent, or sends datagrams back.
const cluster = require('cluster'), dgram = require('dgram'), fs = require('fs'), http = require('http');
const way = process.argv[2];

function serve() {
  http.createServer((request, response) => {
    let length = 0;
    request.on('data', data => { length += data.length; });
    request.on('end', () => {
      const answer = () => response.end(length + '.'.repeat(100000));
      // By io_uring, where that is asked for.
      way === 'io_uring' ? fs.readFile(__filename, answer) : answer();
    });
  }).listen(7100);
}

if (way === 'dgram') {
  const socket = dgram.createSocket('udp4');
  socket.on('message', (message, from) => socket.send(message, from.port, from.address));
  socket.bind(7101, '127.0.0.1');
} else if (way === 'cluster' && cluster.isPrimary) {
  process.on('SIGTERM', () => process.exit());
  for (let i = 0; i < 2; i++) cluster.fork();
} else {
  serve();
}
