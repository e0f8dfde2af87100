// An S3 server as a process of its own, so that tests can stop it as a provider stops. Wrong secrets pass (its own signature check is
// wrong for `GET /bucket/`); wrong key ids do not. Arguments: port (0: a free one), folder, buckets.
import S3rver from '@20minutes/s3rver';

const [port, directory, ...buckets] = process.argv.slice(2);
const server = new S3rver({
  address: '127.0.0.1',
  port: Number(port),
  silent: true,
  directory,
  allowMismatchedSignatures: true,
  configureBuckets: buckets.map((name) => ({ name })),
});
const address = await server.run();
console.log(address.port);
