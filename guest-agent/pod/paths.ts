/** Where things are in the guest. Tests put all of them into a scratch folder. */
export interface PodPaths {
  /** What the host may write below and mount from; default `/run/kata-containers`. */
  readonly root: string;
  /** The guest's resolver configuration, covered by the sandbox's; default `/etc/resolv.conf`. */
  readonly resolvConf: string;
  /** Default `/proc/sys`. */
  readonly sysctl: string;
  /** cgroup v2 file system; default `/sys/fs/cgroup`. */
  readonly cgroup: string;
  /** Folder of the containers' groups below it; default `sealpod`. */
  readonly cgroupParent: string;
  /** crun's state; default `/run/crun`. */
  readonly crunState: string;
}

export const guestPaths: PodPaths = {
  root: '/run/kata-containers',
  resolvConf: '/etc/resolv.conf',
  sysctl: '/proc/sys',
  cgroup: '/sys/fs/cgroup',
  cgroupParent: 'sealpod',
  crunState: '/run/crun',
};
