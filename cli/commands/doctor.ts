import { existsSync, readFileSync } from 'node:fs';
import { SealpodError } from '@sealpod/protocol/errors';
import type { Command } from 'commander';
import { checkCluster } from '../cluster-install/checks.ts';
import { connectCluster } from '../cluster-install/cluster.ts';
import { debianRelease, installCommand, missing, runNeeds } from '../setup/needs.mjs';
import { writeResult } from '../terminal/output.ts';
import { globalOptions } from './context.ts';

interface Finding {
  readonly need: string;
  readonly found: boolean;
  readonly remedy: string;
}

/** Whether KVM can run a pod VM here: the device opens on some nested machines where no guest ever boots. */
function kvmUsable(): boolean {
  return existsSync('/dev/kvm') && (existsSync('/sys/module/kvm_intel') || existsSync('/sys/module/kvm_amd'));
}

function findings(): Finding[] {
  const release = debianRelease();
  const programs = runNeeds.map((need) => ({
    need: `${need.name} (${need.why})`,
    found: need.found(),
    remedy: installCommand([need]),
  }));
  const memory = Number(/^MemAvailable:\s+(\d+)/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? 0) / 1024;
  return [
    {
      need: 'Debian 12 or 13',
      found: release === '12' || release === '13',
      remedy: `this is ${release ?? 'no Debian'}; other systems are untried`,
    },
    {
      need: 'root',
      found: process.getuid?.() === 0,
      remedy: 'run as root: network namespaces, mounts and containerd need it',
    },
    { need: '1 GiB of free memory', found: memory >= 1024, remedy: `only ${Math.round(memory)} MiB are available` },
    { need: '/dev/net/tun', found: existsSync('/dev/net/tun'), remedy: 'modprobe tun' },
    ...programs,
  ];
}

/** One line a check, with what to do where it fails. */
async function doctorOfCluster(options: { readonly kubeconfig?: string }, command: Command): Promise<void> {
  const found = await checkCluster(connectCluster(options));
  const rows = found.map(({ ok, check, found, remedy }) => [ok ? 'ok' : 'WRONG', check, found, remedy]);
  writeResult(globalOptions(command).output, found, ['state', 'check', 'found', 'remedy'], rows);
  const wrong = found.filter(({ ok }) => !ok);
  if (wrong.length > 0) {
    throw new SealpodError('CLUSTER', `${wrong.length} of ${found.length} checks failed`, {
      fix: wrong[0]?.remedy ?? '',
    });
  }
}

/** `sealpod doctor`: the same needs as the set-up checks, one line each with its remedy. */
export function addDoctorCommand(program: Command): void {
  program
    .command('doctor')
    .description('check what this machine needs, or a cluster; exits 2 where something is missing')
    .option('--cluster', 'check a Kubernetes with sealpod; exits 1 where something is wrong')
    .option('--kubeconfig <file>', 'with --cluster: which one (default: KUBECONFIG, ~/.kube/config)')
    .addHelpText('after', '\nExamples:\n  sealpod doctor -o json\n  sealpod doctor --cluster')
    .action(async (options: { cluster?: boolean; kubeconfig?: string }, command: Command) => {
      if (options.cluster === true) return doctorOfCluster(options, command);
      const found = findings();
      const accelerator = kvmUsable() ? 'kvm' : 'tcg (software emulation: slower, same measurements)';
      const rows = found.map((finding) => [
        finding.found ? 'ok' : 'MISSING',
        finding.need,
        finding.found ? '' : finding.remedy,
      ]);
      writeResult(
        globalOptions(command).output,
        { accelerator, needs: found },
        ['state', 'need', 'remedy'],
        [...rows, ['info', `accelerator: ${accelerator}`, '']],
      );
      const absent = missing(runNeeds);
      if (found.some((finding) => !finding.found)) {
        throw new SealpodError(
          'PREREQUISITE',
          `${found.filter((finding) => !finding.found).length} needs are not met`,
          {
            ...(absent.length > 0 ? { fix: installCommand(absent) } : {}),
          },
        );
      }
    });
}
